"""The web demo: pictures in a browser to scores, quality maps and comparisons.

    from sind_hf.app import build_app, launch_app

    launch_app(build_app("demo_output/model"))

Needs Gradio (extra `app`). Nothing of it is imported before `build_app` is called.
"""

from sind_hf.app.page import build_app, launch_app, wait_for_end

__all__ = ["build_app", "launch_app", "wait_for_end"]

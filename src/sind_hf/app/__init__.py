"""The web demo: a page that scores, maps and compares images.

    from sind_hf.app import build_app, launch_app

    launch_app(build_app("demo_output/model"))

It needs Gradio (extra `app`), which is imported when `build_app` is called.
"""

from sind_hf.app.page import build_app, launch_app, wait_for_end

__all__ = ["build_app", "launch_app", "wait_for_end"]

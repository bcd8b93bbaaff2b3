"""The web page as plain files: it scores images in the visitor's browser, without a server.

    from sind_hf.app.static_site import write_site

    write_site("site", "demo_output/model")

Needs the packages of the ONNX export (extra `onnx`), and once the npm package onnxruntime-web.
"""

from sind_hf.app.static_site.site import LARGE_MODEL, Site, push_site, write_site

__all__ = ["LARGE_MODEL", "Site", "push_site", "write_site"]

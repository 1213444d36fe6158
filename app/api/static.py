"""The dashboard's pages, as the build made them."""

from __future__ import annotations

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

import dashboard

FOLDER = Path(dashboard.__file__).parent / "static"


class Pages:
    """ASGI application at the root. Every address without a file is the single page's own business."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files = StaticFiles(directory=folder, check_dir=False)

    async def __call__(self, scope, receive, send) -> None:  # type: ignore[no-untyped-def]
        if scope["type"] != "http":  # a socket at an unknown address
            await send({"type": "websocket.close", "code": 4404})
            return
        response = await self._response(scope)
        await response(scope, receive, send)

    async def _response(self, scope: Scope) -> Response:
        path = scope["path"].lstrip("/")
        if path == "api" or path.startswith("api/"):
            raise HTTPException(404)
        if scope["method"] not in ("GET", "HEAD"):
            raise HTTPException(405)
        index = self._folder / "index.html"
        if not index.is_file():
            return HTMLResponse(NOT_BUILT, status_code=503)
        if path and path != "index.html":
            try:
                response = await self._files.get_response(self._files.get_path(scope), scope)
            except HTTPException as error:
                # A file that is missing is missing; a path without a suffix is one of the page's views.
                if error.status_code != 404 or "." in path.rpartition("/")[2]:
                    raise
            else:
                # The build puts a hash of the content into these names.
                fresh = "public, max-age=31536000, immutable" if path.startswith("assets/") else "no-cache"
                response.headers["Cache-Control"] = fresh
                return response
        return FileResponse(index, headers={"Cache-Control": "no-cache"})


NOT_BUILT = """<!doctype html>
<html lang="zh">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>督听 Duting</title>
<style>
  :root { color-scheme: light dark; font: 16px/1.6 system-ui, "Noto Sans CJK SC", "PingFang SC", sans-serif }
  body { margin: 0; min-height: 100vh; display: grid; place-items: center;
         background: light-dark(#f4f6f9, #12161c); color: light-dark(#1d2733, #dfe6ee) }
  main { max-width: 34rem; margin: 1.5rem; padding: 2rem 2.25rem; border-radius: 12px;
         background: light-dark(#fff, #1a2029); border: 1px solid light-dark(#dde3ea, #2b3440) }
  h1 { margin: 0 0 1rem; font-size: 1.25rem } p { margin: .5rem 0 }
  code { padding: .15rem .45rem; border-radius: 6px; background: light-dark(#eef1f5, #0f1318) }
</style>
<main>
  <h1>督听 Duting</h1>
  <p>服务在运行，但监控页面还没有构建。请在项目目录执行 <code>make dashboard</code>，然后刷新本页。</p>
  <p lang="en">The service runs, but the dashboard is not built: run <code>make dashboard</code>
     in the project's folder, then reload this page.</p>
</main>
</html>
"""

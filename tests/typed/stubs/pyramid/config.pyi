from collections.abc import Callable

from pyramid.request import Request
from pyramid.response import Response

class Configurator:
    def add_route(self, name: str, pattern: str) -> None: ...
    def add_view(self, view: Callable[[Request], Response], *, route_name: str) -> None: ...

class Request:
    matchdict: dict[str, str]

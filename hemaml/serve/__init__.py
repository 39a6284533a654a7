"""`hemaml serve`: the champions behind an HTTP API, and the page that asks it.

One process holds each model once. Requests are parsed in threads, and images are decoded and judged
one request at a time in a thread of its own, since models are not made for several. What was
uploaded is held in memory, for the time of its request alone, and never written or logged.

"For research, not for diagnosis" stands in every answer with a result.
"""

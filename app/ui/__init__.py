"""The pages under /ui, for people.

Beside `api`: both are what the service looks like from outside, over the same verbs, and neither knows the other. A page calls
verbs in process, with the caller of its session, so it can do nothing that the caller's key could not do over the API.

`site.py` lists the pages. Each screen is a file of `screens/` and a template; `visits.py` is what every request has in common:
session, form token, headers. Every page works as links and forms; a script only adds what is live.
"""

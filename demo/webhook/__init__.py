"""A subscriber by webhook, as small as a useful one can be. `python -m demo.webhook --help`"""

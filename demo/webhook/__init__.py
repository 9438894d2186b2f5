"""A subscriber by webhook, as small as one can be that may be copied. `python -m demo.webhook --help`"""

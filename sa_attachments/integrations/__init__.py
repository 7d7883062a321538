"""Integrations: what other packages need to work with attachments, one module for each. Nobody imports them."""

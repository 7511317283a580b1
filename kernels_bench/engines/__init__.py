"""Real serving engines, driven step by step: what they did, and how long it took.

An engine runs a small model of random weights in this process, with its own scheduler and its own KV cache. Loads are
driven through it, and steps of random composition are measured between the loads.
"""

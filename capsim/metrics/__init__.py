"""Pure functions from the two tables of one replication: what users saw, what the nodes did.

TTFT = first token - arrival. TPOT = (E2E - TTFT) / (output tokens - 1). ITL = the gap between two tokens.
Goodput = requests inside every threshold / offered.

The requests table is taken whole, a column at a time; the much longer segments table a part at a time.
"""

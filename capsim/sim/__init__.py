"""The discrete-event simulation: nodes, their schedulers and KV pools, behind a router. The only user of simpy."""

"""How each method of papo computes what a file of cases holds; a module a method, with `outputs(case)`."""

# The name of a method in its files -> the module here.
MODULES = {
    "CFPO": "cfpo",
    "PEPO": "pepo",
    "VGPO": "vgpo",
    "CGPO": "cgpo",
    "PGPO": "pgpo",
    "PIVOT": "pivot",
    "ToR": "tor",
    "TPAE": "tpae",
    "VEPO": "vepo",
    "VPPO": "vppo",
    "second views": "views",
    "NoisyRollout": "noisyrollout",
    "DVRP": "dvrp",
    "CPPO": "cppo",
    "R1-ShareVL": "r1_sharevl",
    "Perceval": "perceval",
    "Evidence-RL": "evidence_rl",
}

# Methods that papo does not offer, and why; docs/methods.md says more.
NOT_CHECKED: dict[str, str] = {
    "VAPO": "its reward asks the policy about claims in generations of their own, which the released trainer never makes",
    "DyCo-RL": "it reads attention weights at every decoding step, which no engine here keeps",
}

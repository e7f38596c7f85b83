"""How each method of papo computes what a file of cases holds; a module a method, with `outputs(case)`."""

_CHECKED = (
    *(
        "CFPO",
        "PEPO",
        "VGPO",
        "CGPO",
        "PGPO",
        "PIVOT",
        "ToR",
        "TPAE",
        "VEPO",
        "VPPO",
        "second views",
    ),
    *("NoisyRollout", "DVRP", "CPPO", "R1-ShareVL", "Perceval", "Evidence-RL"),
)

# The name of a method in its files -> the module here.
MODULES = {name: name.lower().replace("-", "_").replace(" ", "_") for name in _CHECKED}

# Methods that papo does not offer, and why; docs/methods.md says more.
NOT_CHECKED: dict[str, str] = {
    "VAPO": "its reward asks the policy about claims in generations of their own, which the released trainer never makes",
    "DyCo-RL": "it reads attention weights at every decoding step, which no engine here keeps",
}

r"""The published format rule: think, then box the answer. Linear in the length of the text."""

FORMAT_RULES = ("think_then_box", "close_think_then_box")
"""`think_then_box` wants the opening `<think>`; `close_think_then_box` is for chat templates that
write it themselves (Qwen3-VL Thinking), so that the response starts inside it."""

_LANDMARKS = ("</think>", r"\boxed{", "}")


def follows_format(text: str, rule: str) -> bool:
    r"""True if the response thinks in `<think> </think>` and then writes a box.

    Equal to `re.fullmatch(r"<think>.*</think>.*\\boxed\{.*\}.*", text, re.DOTALL)`, the official
    reward's rule (`close_think_then_box`: without the leading `<think>`, as on the official Qwen3
    branch). The landmarks are found from left to right, so hostile text cannot make the search
    backtrack.
    """
    position = 0
    if rule == "think_then_box":
        if not text.startswith("<think>"):
            return False
        position = len("<think>")
    for landmark in _LANDMARKS:
        found = text.find(landmark, position)
        if found < 0:
            return False
        position = found + len(landmark)
    return True

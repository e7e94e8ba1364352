"""Commands of the README and of the guides, with little to do."""


def shortened(words):
    """A training command with little to do: few images, one epoch, small images."""
    if words[0] == "train" and "--resume" not in words:
        return [
            *words, "--limit", "128", "--epochs", "1", "--max-filters", "8",
            "--no-preview", "--no-report",
        ]  # fmt: skip
    if words[0] in ("evaluate", "compare", "figures", "report"):
        fewer = ["--quality", "30"] if "--quality" in words else []
        return [*words, "--limit", "20", *fewer]
    if words[0] == "encode":
        return [*words, "--limit", "20"]
    if words[0] == "anomalies":
        words[words.index("--limit") + 1] = "20"
    if words[0] == "impute":
        return [*words, "--steps", "2", "--completions", "2"]
    if words[0] == "explore":
        # A server would not end by itself: see test_explorer_browser.py.
        page = [] if "--html" in words else ["--html", "live.html"]
        return [*words, "--limit", "20", *page]
    return words

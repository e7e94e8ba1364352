"""What every result of a benchmark begins with."""


def header(command):
    return {
        "date": "2020-01-02",
        "command": f"python -m benchmarks.{command}",
        "machine": {
            "cpu": "Some CPU",
            "cores": 2,
            "flags": ["avx2"],
            "memory_gib": 8.0,
            "os": "Linux",
            "python": "3.11",
            "load_average": 0.0,
        },
    }

"""Files that deploy `adz serve` elsewhere: on Kubernetes, behind llm-d, with Docker Compose.

They are checked against the published schemas. None of them was deployed to a cluster.
"""

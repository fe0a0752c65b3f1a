"""Where a version comes from and what was made from it: graph.py gathers it from the manifests,
tree.py, mermaid.py and svg.py show it, layout.py places the boxes of a drawing."""

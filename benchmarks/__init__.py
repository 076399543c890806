"""What the layer costs, measured beside references in one run. One file per question; `./build.sh bench` prints JSON
lines.
"""

"""How the layer is made. `README.md` one folder up names the files in reading order."""

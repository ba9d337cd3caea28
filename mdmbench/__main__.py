from mdmbench.cli import app

app()

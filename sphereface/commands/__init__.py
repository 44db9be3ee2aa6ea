"""What the command line can do: a module for each ``sphereface COMMAND``, with ``run(args) -> exit
code``.
"""

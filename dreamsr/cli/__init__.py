"""The command line. Commands parse, call the engine and print; torch is imported in their bodies alone."""

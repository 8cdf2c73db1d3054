"""Small commands beside `buttersink`, each useful alone."""

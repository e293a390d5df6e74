"""What users meet when something is wrong: codes, spans, causes, ways out."""

"""What a person looks at: Altair charts of results, one file a kind of result. Nothing is computed here."""

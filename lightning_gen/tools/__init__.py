"""What the commands compute about a trained model, and the pictures of it; no files and no command lines here."""

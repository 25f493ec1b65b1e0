"""Mail: messages of eml, msg and mbox files to text with sender, date and subject; attachments by their own kind."""

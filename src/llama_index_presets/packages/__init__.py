"""Other packages: extras asked for, imports put off."""

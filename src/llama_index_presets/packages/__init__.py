"""Other packages: extras asked for, imports put off or stood in for."""

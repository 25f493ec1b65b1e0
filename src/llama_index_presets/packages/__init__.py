"""Other packages: extras that are required, imports that are deferred or replaced by stand-ins."""

"""Report pages: charts, and templates that are filled with them (extra ``report``)."""

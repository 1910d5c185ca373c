"""Studies that run the pipeline many times, or prepare what it reads: filters, built references, searches."""

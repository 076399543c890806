// Cannot be loaded: what a function does whose configuration is missing.
throw new TypeError("TABLE_NAME is not set");

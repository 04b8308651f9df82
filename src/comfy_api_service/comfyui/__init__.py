"""The one package that knows ComfyUI's wire: HTTP client, event socket, typed messages, error mapping."""

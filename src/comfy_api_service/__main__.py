"""`python -m comfy_api_service` is `comfy-api`."""

from comfy_api_service.cli.main import main

if __name__ == "__main__":
    main()

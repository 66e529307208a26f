"""``python -m keyong_job client|server|query|cipher``: one sandbox session."""

import sys


def main() -> None:
    """Run the session named on the command line."""
    if sys.argv[1:] == ["client"]:
        from . import client

        client.main()
    elif sys.argv[1:] == ["server"]:
        from . import server

        server.main()
    elif sys.argv[1:] == ["query"]:
        from . import query

        query.main()
    elif sys.argv[1:] == ["cipher"]:
        from . import cipher

        cipher.main()
    else:
        sys.exit("usage: keyong_job client|server|query|cipher")


if __name__ == "__main__":
    main()

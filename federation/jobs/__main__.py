"""``python -m keyong_job client|server|query|cipher|scoring|intersection``: one sandbox session."""

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
    elif sys.argv[1:] == ["scoring"]:
        from . import scoring

        scoring.main()
    elif sys.argv[1:] == ["intersection"]:
        from . import intersection

        intersection.main()
    else:
        sys.exit("usage: keyong_job client|server|query|cipher|scoring|intersection")


if __name__ == "__main__":
    main()

"""The meeting point of a consortium: links, roster, mail, catalog, jobs and their aggregation.

Import the modules: :mod:`coordinator.service` serves, :mod:`coordinator.enrolment` changes the roster.
"""

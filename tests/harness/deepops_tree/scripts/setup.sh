#!/usr/bin/env bash
# Only what is read of it: the versions.
ANSIBLE_VERSION="${ANSIBLE_VERSION:-10.7.0}"     # Ansible version to install
JINJA2_VERSION="${JINJA2_VERSION:-3.1.5}"
JMESPATH_VERSION="${JMESPATH_VERSION:-1.1.0}"
MARKUPSAFE_VERSION="${MARKUPSAFE_VERSION:-3.0.2}"

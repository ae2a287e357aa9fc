"""What the other relays, and the nginx that is their backend, are told."""

import os

LOOPBACK = "127.0.0.1"


def nginx_common(directory):
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
daemon off;
{user}
worker_processes 2;
pid {directory}/nginx.pid;
error_log {directory}/error.log error;
events {{ worker_connections 4096; }}
"""


def nginx_http(directory):
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    paths = "\n".join(f"  {kind}_temp_path {directory}/{kind};" for kind in kinds)
    return f"""
{paths}
  access_log off;
  keepalive_timeout 300s;
  keepalive_requests 1000000000;
"""


def backend_conf(directory, port, files):
    return f"""{nginx_common(directory)}
http {{
{nginx_http(directory)}
  sendfile on;
  tcp_nopush on;
  open_file_cache max=10;
  server {{
    listen {LOOPBACK}:{port} reuseport backlog=4096;
    root {files};
  }}
}}
"""


def nginx_conf(directory, port, backend):
    return f"""{nginx_common(directory)}
http {{
{nginx_http(directory)}
  upstream backend {{
    server {LOOPBACK}:{backend};
    keepalive 256;
    keepalive_requests 1000000000;
  }}
  map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
  client_max_body_size 0;
  proxy_request_buffering off;
  server {{
    listen {LOOPBACK}:{port} reuseport backlog=4096;
    location / {{
      proxy_pass http://backend;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"""


def haproxy_conf(_directory, port, backend):
    return f"""
global
  nbthread 2
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  option forwardfor
frontend public
  bind {LOOPBACK}:{port}
  default_backend wrapped
backend wrapped
  server one {LOOPBACK}:{backend} pool-max-conn 512
"""


def caddy_conf(_directory, port, backend):
    return f"""
{{
  admin off
  auto_https off
}}
http://:{port} {{
  bind {LOOPBACK}
  reverse_proxy {LOOPBACK}:{backend} {{
    transport http {{
      keepalive_idle_conns_per_host 512
    }}
  }}
}}
"""

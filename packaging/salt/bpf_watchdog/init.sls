# Settings, rules and secrets of bpf-watchdog from the pillar `bpf_watchdog`, see pillar.example.
{%- set pillar_data = salt['pillar.get']('bpf_watchdog', {}) %}
{%- set etc = '/etc/bpf-watchdog' %}
{%- set check = '/usr/bin/bpf-watchdog check --rules ' ~ etc ~ '/rules.d --config ' ~ etc ~ '/watchdog.toml' %}

bpf-watchdog:
  pkg.installed: []
  service.running:
    - enable: true
    - require:
      - file: {{ etc }}/watchdog.toml

{%- for folder in ('', '/secrets') %}

{{ etc ~ folder }}:
  file.directory:
    - user: root
    - group: bpf-watchdog
    - mode: '0750'
    - require:
      - pkg: bpf-watchdog
{%- endfor %}

{{ etc }}/rules.d:
  file.directory:
    - user: root
    - group: bpf-watchdog
    - dir_mode: '0750'
    - clean: {{ pillar_data.get('purge_rules', false) | tojson }}
    - require:
      - pkg: bpf-watchdog
{%- for name in pillar_data.get('rules', {}) %}
      - file: {{ etc }}/rules.d/{{ name }}
{%- endfor %}

{%- for name in pillar_data.get('secrets', {}) %}

{{ etc }}/secrets/{{ name }}:
  file.managed:
    - user: root
    - group: bpf-watchdog
    - mode: '0640'
    - contents_pillar: bpf_watchdog:secrets:{{ name }}
    - show_changes: false
    - require:
      - file: {{ etc }}/secrets
    - require_in:
      - file: {{ etc }}/watchdog.toml
{%- endfor %}

# Alone: rules that need its new receivers follow.
{{ etc }}/watchdog.toml:
  file.managed:
    - user: root
    - group: bpf-watchdog
    - mode: '0640'
    - contents_pillar: bpf_watchdog:settings
    - check_cmd: /usr/bin/bpf-watchdog check
    - tmp_ext: .toml
    - require:
      - file: {{ etc }}

{%- for name in pillar_data.get('rules', {}) %}

{{ etc }}/rules.d/{{ name }}:
  file.managed:
    - user: root
    - group: bpf-watchdog
    - mode: '0640'
    - makedirs: true
    - contents: {{ pillar_data.rules[name] | tojson }}
    - check_cmd: {{ check }} --as {{ name }}
    - tmp_ext: .toml
    - require:
      - file: {{ etc }}/watchdog.toml
    - require_in:
      - cmd: reload-bpf-watchdog
{%- endfor %}

# No watch: a reload that a failed run has lost would leave the former rules in force.
reload-bpf-watchdog:
  cmd.run:
    - name: /usr/bin/bpf-watchdog reload
    - unless: /usr/bin/bpf-watchdog reload --dry-run --exit-code
    - require:
      - service: bpf-watchdog
      - file: {{ etc }}/rules.d

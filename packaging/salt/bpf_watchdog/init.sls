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
    - mode: '0750'
    - require:
      - pkg: bpf-watchdog

{%- if pillar_data.get('purge_rules', false) %}
{%- set found = salt['file.find'](etc ~ '/rules.d', type='fl', print='name', maxdepth=1) %}
{%- for name in found | sort | reject('in', pillar_data.get('rules', {})) %}

# First: a rule that moves to another file cannot be in both.
{{ etc }}/rules.d/{{ name }}:
  file.absent:
    - require:
      - file: {{ etc }}/rules.d
    - require_in:
      - cmd: reload-bpf-watchdog
{%- for rule_file in pillar_data.get('rules', {}) %}
      - file: {{ etc }}/rules.d/{{ rule_file }}
{%- endfor %}
{%- endfor %}
{%- endif %}

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
    - contents: {{ pillar_data.rules[name] | tojson }}
    - check_cmd: {{ check }} --as {{ name }}
    - tmp_ext: .toml
    - require:
      - file: {{ etc }}/watchdog.toml
      - file: {{ etc }}/rules.d
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

# For keys that are read at the start only.
restart-bpf-watchdog:
  cmd.run:
    - name: systemctl restart bpf-watchdog
    - onlyif: /usr/bin/bpf-watchdog reload --dry-run --json | grep -q '"restart_keys".*\[$'
    - require:
      - cmd: reload-bpf-watchdog

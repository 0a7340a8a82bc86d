# @summary Settings, rules and secrets of bpf-watchdog, reloaded where they differ from those in force.
#
# @param settings
#   Content of watchdog.toml.
# @param rules
#   Content of each rule file, by its name, which ends in .toml.
# @param secrets
#   Content of each file in /etc/bpf-watchdog/secrets, by its name.
# @param purge_rules
#   Remove rule files that `rules` does not name.
class bpf_watchdog (
  String[1]                                 $settings,
  Hash[Pattern[/\A\w[\w.-]*\.toml\z/], String] $rules = {},
  Hash[Pattern[/\A\w[\w.-]*\z/], Sensitive[String]] $secrets = {},
  Boolean                                   $purge_rules = false,
) {
  $etc = '/etc/bpf-watchdog'
  $check = "/usr/bin/bpf-watchdog check --rules ${etc}/rules.d --config ${etc}/watchdog.toml"

  package { 'bpf-watchdog':
    ensure => installed,
  }

  file {
    default:
      owner   => 'root',
      group   => 'bpf-watchdog',
      require => Package['bpf-watchdog'];

    [$etc, "${etc}/secrets"]:
      ensure => directory,
      mode   => '0750';

    "${etc}/rules.d":
      ensure  => directory,
      mode    => '0750',
      recurse => $purge_rules,
      purge   => $purge_rules;

    "${etc}/watchdog.toml":
      mode         => '0640',
      content      => $settings,
      # Alone: rules that need its new receivers follow.
      validate_cmd => '/usr/bin/bpf-watchdog check %';
  }

  $secrets.each |$name, $content| {
    file { "${etc}/secrets/${name}":
      owner     => 'root',
      group     => 'bpf-watchdog',
      mode      => '0640',
      content   => $content,
      show_diff => false,
      before    => File["${etc}/watchdog.toml"],
    }
  }

  $rules.each |$name, $content| {
    file { "${etc}/rules.d/${name}":
      owner        => 'root',
      group        => 'bpf-watchdog',
      mode         => '0640',
      content      => $content,
      validate_cmd => "${check} --as ${name} %",
      require      => File["${etc}/watchdog.toml"],
      before       => Service['bpf-watchdog'],
    }
  }

  service { 'bpf-watchdog':
    ensure  => running,
    enable  => true,
    require => File["${etc}/watchdog.toml", "${etc}/rules.d"],
  }

  # No notify: a refresh that a failed run has lost would leave the former rules in force.
  exec { 'reload bpf-watchdog':
    command => '/usr/bin/bpf-watchdog reload',
    unless  => '/usr/bin/bpf-watchdog reload --dry-run --exit-code',
    require => Service['bpf-watchdog'],
  }

  # For keys that are read at the start only.
  exec { 'restart bpf-watchdog':
    command  => 'systemctl restart bpf-watchdog',
    onlyif   => "/usr/bin/bpf-watchdog reload --dry-run --json | grep -q '\"restart_keys\".*\\[\$'",
    provider => shell,
    path     => ['/usr/bin', '/bin'],
    require  => Exec['reload bpf-watchdog'],
  }
}

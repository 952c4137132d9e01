mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  name   = "pictures"
  vpc_id = "vpc-0123456789abcdef0"
  private_hosts = [
    { cidr = "10.20.4.0/24", host = "one.internal", port = 8443 },
    { cidr = "10.20.4.0/24", host = "two.internal", port = 8443 },
    { cidr = "10.30.0.0/16", host = "one.internal", port = 443 },
  ]
}

run "https_out_and_nothing_in" {
  command = apply

  module {
    source = "./modules/firewall"
  }

  assert {
    condition     = toset(keys(output.security_group_ids)) == toset(["hosting", "lambda", "notebook", "trainer", "training"])
    error_message = "One group a workload."
  }

  assert {
    condition     = alltrue([for group in aws_security_group.workload : length(group.ingress) == 0])
    error_message = "A workload listens to the network."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.https) == 5 && alltrue([for rule in aws_vpc_security_group_egress_rule.https : rule.from_port == 443 && rule.to_port == 443 && rule.ip_protocol == "tcp"])
    error_message = "Everything leaves by HTTPS."
  }

  assert {
    condition = alltrue([
      for rule in [aws_vpc_security_group_ingress_rule.training_hosts, aws_vpc_security_group_egress_rule.training_hosts] :
      rule.security_group_id == output.security_group_ids["training"] && rule.referenced_security_group_id == output.security_group_ids["training"] && rule.cidr_ipv4 == null
    ])
    error_message = "The hosts of a training job reach each other, and nobody else reaches them."
  }

  assert {
    condition = (
      { for key, rule in aws_vpc_security_group_egress_rule.private_host : key => "${rule.cidr_ipv4} ${rule.from_port}-${rule.to_port}" }
      == { "10.20.4.0/24:8443" = "10.20.4.0/24 8443-8443", "10.30.0.0/16:443" = "10.30.0.0/16 443-443" }
    )
    error_message = "One rule for each range and port of the private hosts."
  }

  assert {
    condition     = alltrue([for rule in aws_vpc_security_group_egress_rule.private_host : rule.security_group_id == output.security_group_ids["lambda"]])
    error_message = "Only the Lambda reaches the private hosts."
  }
}

run "refuses_loopback" {
  command = plan

  module {
    source = "./modules/firewall"
  }

  variables {
    private_hosts = [{ cidr = "127.0.0.0/16", host = "pictures.internal", port = 443 }]
  }

  expect_failures = [var.private_hosts]
}

run "refuses_the_metadata_range" {
  command = plan

  module {
    source = "./modules/firewall"
  }

  variables {
    private_hosts = [{ cidr = "169.254.169.254/32", host = "pictures.internal", port = 443 }]
  }

  expect_failures = [var.private_hosts]
}

run "refuses_a_range_that_hides_loopback" {
  command = plan

  module {
    source = "./modules/firewall"
  }

  variables {
    private_hosts = [{ cidr = "0.0.0.0/0", host = "pictures.internal", port = 443 }]
  }

  expect_failures = [var.private_hosts]
}

run "refuses_localhost_and_ipv6_loopback" {
  command = plan

  module {
    source = "./modules/firewall"
  }

  variables {
    private_hosts = [{ cidr = "::1/128", host = "localhost", port = 0 }]
  }

  expect_failures = [var.private_hosts]
}

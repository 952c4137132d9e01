# Nothing here listens to the network, but the hosts of a training job to each other. Everything speaks TLS outwards.
locals {
  group_names = { for workload in ["hosting", "lambda", "notebook", "trainer", "training"] : workload => "${var.name}-${workload}" }

  # Two names may share an address range and a port; AWS refuses the same rule twice.
  private_egress = { for host in var.private_hosts : "${host.cidr}:${host.port}" => host... }
}

resource "aws_security_group" "workload" {
  # checkov:skip=CKV2_AWS_5:Each group is attached by the module of its workload; the scanner does not follow a module's output into another module.
  for_each = local.group_names

  name_prefix = "${each.value}-"
  description = "${each.value}: HTTPS out, ${each.key == "training" ? "its own hosts" : "nothing"} in"
  vpc_id      = var.vpc_id

  tags = { Name = each.value }

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_egress_rule" "https" {
  for_each = aws_security_group.workload

  security_group_id = each.value.id
  description       = "HTTPS to AWS APIs, package mirrors and picture hosts"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_egress_rule" "private_host" {
  for_each = local.private_egress

  security_group_id = aws_security_group.workload["lambda"].id
  description       = "Pictures from ${join(", ", distinct(each.value[*].host))}"
  ip_protocol       = "tcp"
  from_port         = each.value[0].port
  to_port           = each.value[0].port
  cidr_ipv4         = each.value[0].cidr
}

# A training job on several hosts: gloo takes any TCP port, and encrypted traffic between containers is IPsec beside it
# (UDP 500, ESP). Only members of the group are on either end.
resource "aws_vpc_security_group_ingress_rule" "training_hosts" {
  security_group_id            = aws_security_group.workload["training"].id
  description                  = "The other hosts of a training job"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.workload["training"].id
}

resource "aws_vpc_security_group_egress_rule" "training_hosts" {
  security_group_id            = aws_security_group.workload["training"].id
  description                  = "The other hosts of a training job"
  ip_protocol                  = "-1"
  referenced_security_group_id = aws_security_group.workload["training"].id
}

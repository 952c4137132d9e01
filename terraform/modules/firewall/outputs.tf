output "security_group_ids" {
  description = "Security group of each workload: hosting, lambda, notebook, trainer, training."
  value = {
    hosting  = aws_security_group.workload["hosting"].id
    lambda   = aws_security_group.workload["lambda"].id
    notebook = aws_security_group.workload["notebook"].id
    trainer  = aws_security_group.workload["trainer"].id
    training = aws_security_group.workload["training"].id
  }

  # Whoever takes a group has its ways, too.
  depends_on = [
    aws_vpc_security_group_egress_rule.https,
    aws_vpc_security_group_egress_rule.private_host,
    aws_vpc_security_group_egress_rule.training_hosts,
    aws_vpc_security_group_ingress_rule.training_hosts,
  ]
}

locals {
  role_names = {
    builder   = aws_iam_role.builder.name
    flow_logs = aws_iam_role.flow_logs.name
    hosting   = aws_iam_role.hosting.name
    lambda    = aws_iam_role.lambda.name
    notebook  = aws_iam_role.notebook.name
    trainer   = aws_iam_role.trainer.name
    training  = aws_iam_role.training.name
  }
}

output "role_arns" {
  description = "ARN of each role: builder, flow_logs, hosting, lambda, notebook, trainer, training. Known at plan."
  value       = { for workload, name in local.role_names : workload => "${local.iam_arn}:role/${name}" }

  # Whoever takes a role finds its policy on it.
  depends_on = [
    aws_iam_role_policy.builder,
    aws_iam_role_policy.flow_logs,
    aws_iam_role_policy.hosting,
    aws_iam_role_policy.lambda,
    aws_iam_role_policy.notebook,
    aws_iam_role_policy.trainer,
    aws_iam_role_policy.training,
  ]
}

output "role_names" {
  description = "Name of each role, by the same keys."
  value       = local.role_names
}

output "trainer_instance_profile" {
  description = "Name of the instance profile that carries the EC2 trainer's role."
  value       = aws_iam_instance_profile.trainer.name

  depends_on = [aws_iam_role_policy.trainer]
}

# Pulling a workload's image from its one repository, for the two roles that run one.

locals {
  pull_image = {
    for workload, repository_arn in local.repository_arns : workload => [
      {
        Sid      = "PullImage"
        Effect   = "Allow"
        Action   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
        Resource = repository_arn
      },
      {
        Sid      = "LogInToRegistry"
        Effect   = "Allow"
        Action   = "ecr:GetAuthorizationToken"
        Resource = "*" # A token is for the whole registry.
      },
    ]
  }
}

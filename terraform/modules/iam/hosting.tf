# The endpoint: fetches its archive and its image, and watches the alarms that roll a deployment back.

resource "aws_iam_role" "hosting" {
  name                 = "${var.name}-hosting"
  description          = "SageMaker endpoint: read releases"
  assume_role_policy   = local.trust["sagemaker"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "hosting" {
  name = "hosting"
  role = aws_iam_role.hosting.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.sagemaker_network_interfaces, local.pull_image["hosting"], [
      {
        Sid      = "ReadReleases"
        Effect   = "Allow"
        Action   = "s3:GetObject"
        Resource = ["${local.bucket_arn}/releases/*", "${local.bucket_arn}/training/*/output/*"]
      },
      {
        # Without it a missing archive is answered 403 instead of 404.
        Sid       = "ListReleases"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringLike = { "s3:prefix" = ["releases/*", "training/*"] } }
      },
      {
        Sid    = "WriteLogs"
        Effect = "Allow"
        Action = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        # The group itself and its streams.
        Resource = "${local.logs_arn}:log-group:/aws/sagemaker/Endpoints/${var.name}:*"
      },
      {
        Sid       = "PublishInstanceMetrics"
        Effect    = "Allow"
        Action    = "cloudwatch:PutMetricData"
        Resource  = "*" # Metrics have no resource level; the namespace is the bound.
        Condition = { StringEquals = { "cloudwatch:namespace" = "/aws/sagemaker/Endpoints" } }
      },
      {
        # A deployment that may not read its alarms never rolls back.
        Sid      = "WatchRollbackAlarms"
        Effect   = "Allow"
        Action   = "cloudwatch:DescribeAlarms"
        Resource = "${local.cloudwatch_arn}:alarm:${var.name}-*"
      },
    ])
  })
}

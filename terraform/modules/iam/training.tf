# SageMaker training and tuning jobs: pictures and code in, an archive out.

resource "aws_iam_role" "training" {
  name                 = "${var.name}-training"
  description          = "SageMaker training jobs: read data sets, features and code, write archives and checkpoints"
  assume_role_policy   = local.trust["sagemaker"]
  permissions_boundary = var.permissions_boundary_arn
}

resource "aws_iam_role_policy" "training" {
  name = "training"
  role = aws_iam_role.training.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.sagemaker_network_interfaces, local.pull_image["training"], [
      {
        # Checkpoints too: a job that begins again takes up its own, and features are those of an earlier job.
        Sid    = "ReadInput"
        Effect = "Allow"
        Action = "s3:GetObject"
        Resource = [
          "${local.bucket_arn}/code/*",
          "${local.bucket_arn}/datasets/*",
          "${local.bucket_arn}/features/*",
          "${local.bucket_arn}/training/*/checkpoints/*",
        ]
      },
      {
        Sid       = "ListInput"
        Effect    = "Allow"
        Action    = "s3:ListBucket"
        Resource  = local.bucket_arn
        Condition = { StringLike = { "s3:prefix" = ["code/*", "datasets/*", "features/*", "training/*/checkpoints/*"] } }
      },
      {
        # Archives, output and checkpoints, each below the job's name.
        Sid      = "WriteOutput"
        Effect   = "Allow"
        Action   = ["s3:AbortMultipartUpload", "s3:PutObject"]
        Resource = "${local.bucket_arn}/training/*"
      },
      {
        # The group belongs to the whole account; whoever comes first makes it.
        Sid      = "CreateLogGroup"
        Effect   = "Allow"
        Action   = ["logs:CreateLogGroup", "logs:DescribeLogStreams"]
        Resource = "${local.logs_arn}:log-group:/aws/sagemaker/TrainingJobs:*"
      },
      {
        Sid      = "WriteLogs"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:PutLogEvents"]
        Resource = "${local.logs_arn}:log-group:/aws/sagemaker/TrainingJobs:log-stream:${var.name}-*"
      },
      {
        Sid       = "PublishJobMetrics"
        Effect    = "Allow"
        Action    = "cloudwatch:PutMetricData"
        Resource  = "*" # Metrics have no resource level; the namespace is the bound.
        Condition = { StringEquals = { "cloudwatch:namespace" = "/aws/sagemaker/TrainingJobs" } }
      },
    ])
  })
}
